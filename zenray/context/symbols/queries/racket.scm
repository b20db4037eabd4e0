; inherits: scheme
((list . (symbol) @word . (string)) @import (#one-of? @word "require"))
