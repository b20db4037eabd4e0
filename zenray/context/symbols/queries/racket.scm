; inherits: scheme
((list . (symbol) @word . (string)) @import (#set! words "require"))
