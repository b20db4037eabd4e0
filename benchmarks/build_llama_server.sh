#!/usr/bin/env bash
# Build llama.cpp's server from the sources that llama-cpp-python ships: build_llama_server.sh DIR
set -euo pipefail
dir=${1:?usage: build_llama_server.sh DIR}
version=${LLAMA_CPP_PYTHON:-0.3.36}
python=${PYTHON:-python3}
mkdir -p "$dir"
cd "$dir"

[ -d "llama_cpp_python-$version" ] || {
  "$python" -m pip download -q --no-deps --no-binary llama-cpp-python "llama-cpp-python==$version"
  tar xzf "llama_cpp_python-$version.tar.gz"
}
cmake -S "llama_cpp_python-$version/vendor/llama.cpp" -B llama-server-build -DCMAKE_BUILD_TYPE=Release \
  -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
  -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
cmake --build llama-server-build --target llama-server --parallel "$(nproc)"
echo "the server is $dir/llama-server-build/bin/llama-server"
