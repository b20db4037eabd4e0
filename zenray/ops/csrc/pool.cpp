#include "pool.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <mutex>
#include <system_error>
#include <thread>

namespace zenray {
namespace {

constexpr int kSpins = 1500;       // pauses of an idle thread before it sleeps: about 50 us
constexpr int kYieldAfter = 300;   // pauses of a waiting caller before it offers its core: about 10 us

class Team {
  public:
    void share_out(int64_t num_threads, int64_t num_items, int64_t share, RangeWork work, void* context) {
        std::unique_lock<std::mutex> lock(caller_, std::try_to_lock);
        if (!lock.owns_lock() || !grow(num_threads - 1)) {
            work(context, 0, num_items);
            return;
        }
        // Nobody holds an item here and none is left to claim: a thread that reads these fields now cannot claim
        // with them.
        num_items_.store(num_items, std::memory_order_relaxed);
        share_.store(share, std::memory_order_relaxed);
        work_.store(work, std::memory_order_relaxed);
        context_.store(context, std::memory_order_relaxed);
        helpers_.store(static_cast<int>(num_threads - 1), std::memory_order_relaxed);
        unfinished_.store(num_items, std::memory_order_relaxed);
        const uint64_t job = (claims_.load(std::memory_order_relaxed) >> 32) + 1;
        claims_.store(job << 32 | static_cast<uint64_t>(num_items), std::memory_order_seq_cst);
        if (sleepers_.load(std::memory_order_seq_cst) > 0) {
            wakes_.fetch_add(1, std::memory_order_seq_cst);
            futex(FUTEX_WAKE_PRIVATE, static_cast<int>(num_threads - 1));
        }
        while (claim()) {
        }
        for (int spins = 0; unfinished_.load(std::memory_order_acquire) > 0;) {
            if (++spins < kYieldAfter) {
                _mm_pause();
            } else {
                sched_yield();
            }
        }
    }

  private:
    // Does a range of the present job. The job's number stands beside the count of unclaimed items, so a thread that
    // looked away cannot claim from a later job with what it read of an earlier one.
    bool claim() {
        uint64_t seen = claims_.load(std::memory_order_acquire);
        while (static_cast<uint32_t>(seen) > 0) {
            const auto left = static_cast<int64_t>(static_cast<uint32_t>(seen));
            const RangeWork work = work_.load(std::memory_order_relaxed);
            void* const context = context_.load(std::memory_order_relaxed);
            const int64_t share = share_.load(std::memory_order_relaxed);
            const int64_t begin = num_items_.load(std::memory_order_relaxed) - left;
            const int64_t count = share > 0 && left > share ? left / share : 1;
            const uint64_t next = seen - static_cast<uint64_t>(count);
            if (claims_.compare_exchange_weak(seen, next, std::memory_order_acq_rel, std::memory_order_acquire)) {
                work(context, begin, begin + count);
                unfinished_.fetch_sub(count, std::memory_order_release);
                return true;
            }
        }
        return false;
    }

    void help(int index) {
        for (int spins = 0;;) {
            const bool wanted = index < helpers_.load(std::memory_order_relaxed);
            if (wanted && claim()) {
                spins = 0;
            } else if (++spins < kSpins) {
                _mm_pause();
            } else {
                sleep(index);
                spins = 0;
            }
        }
    }

    void sleep(int index) {
        const int wakes = wakes_.load(std::memory_order_seq_cst);
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        const bool idle = static_cast<uint32_t>(claims_.load(std::memory_order_seq_cst)) == 0;
        if (idle || index >= helpers_.load(std::memory_order_relaxed)) futex(FUTEX_WAIT_PRIVATE, wakes);
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    }

    bool grow(int64_t helpers) {
        if (helpers <= num_helpers_) return true;
        sigset_t all, before;  // signals are for the threads of the program, not for these
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        try {
            for (; num_helpers_ < helpers; ++num_helpers_)
                std::thread([this, index = static_cast<int>(num_helpers_)] { help(index); }).detach();
        } catch (const std::system_error&) {
            // The machine gives no more threads: go on with those there are.
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return num_helpers_ > 0;
    }

    void futex(int operation, int value) {
        syscall(SYS_futex, reinterpret_cast<int*>(&wakes_), operation, value, nullptr, nullptr, 0);
    }

    std::mutex caller_;
    int64_t num_helpers_ = 0;
    alignas(64) std::atomic<uint64_t> claims_{0};  // job number << 32 | items not yet claimed
    std::atomic<RangeWork> work_{nullptr};
    std::atomic<void*> context_{nullptr};
    std::atomic<int64_t> num_items_{0}, share_{0};
    std::atomic<int> helpers_{0};
    alignas(64) std::atomic<int64_t> unfinished_{0};
    alignas(64) std::atomic<int> sleepers_{0};
    std::atomic<int> wakes_{0};
};

// Threads do not survive a fork: the child starts with a new team. Never destroyed, as its threads never end.
Team* team = nullptr;

Team& the_team() {
    static std::once_flag once;
    std::call_once(once, [] {
        team = new Team;
        pthread_atfork(nullptr, nullptr, [] { team = new Team; });
    });
    return *team;
}

}  // namespace

void share_out(int64_t num_threads, int64_t num_items, int64_t share, RangeWork work, void* context) {
    if (num_threads <= 1 || num_items <= 1) {
        if (num_items > 0) work(context, 0, num_items);
        return;
    }
    the_team().share_out(num_threads, num_items, share, work, context);
}

}  // namespace zenray
