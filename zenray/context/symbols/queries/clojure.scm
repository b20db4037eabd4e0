((list_lit . (sym_lit) @word . (sym_lit) @name) @function (#one-of? @word "defn" "defn-" "defmacro" "defmulti"))
((list_lit . (sym_lit) @word . (sym_lit) @name) @class (#one-of? @word "defprotocol" "defrecord" "deftype" "definterface"))
((list_lit . (sym_lit) @word . (sym_lit) @name) @constant (#one-of? @word "def" "defonce"))
((vec_lit . (sym_lit) . (kwd_lit) @word) @import (#one-of? @word ":as" ":refer"))
