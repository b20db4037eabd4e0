((list_lit . (sym_lit) @word . (sym_lit) @name) @function (#set! words "defn defn- defmacro defmulti"))
((list_lit . (sym_lit) @word . (sym_lit) @name) @class (#set! words "defprotocol defrecord deftype definterface"))
((list_lit . (sym_lit) @word . (sym_lit) @name) @constant (#set! words "def defonce"))
((vec_lit . (sym_lit) . (kwd_lit) @word) @import (#set! words ":as :refer"))
