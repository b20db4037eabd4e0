((list . (symbol) @word . (list . (symbol) @name)) @function (#one-of? @word "define" "define-syntax-rule" "define/contract"))
((list . (symbol) @word . (symbol) @name) @function (#one-of? @word "define-syntax" "define-macro"))
((list . (symbol) @word . (symbol) @name) @type (#one-of? @word "struct" "define-record-type" "define-struct"))
(program (list . (symbol) @word . (symbol) @name) @constant (#one-of? @word "define"))
