((list . (symbol) @word . (list . (symbol) @name)) @function (#set! words "define define-syntax-rule define/contract"))
((list . (symbol) @word . (symbol) @name) @function (#set! words "define-syntax define-macro"))
((list . (symbol) @word . (symbol) @name) @type (#set! words "struct define-record-type define-struct"))
(program (list . (symbol) @word . (symbol) @name) @constant (#set! words "define"))
