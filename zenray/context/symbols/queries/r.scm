(binary_operator lhs: (identifier) @name rhs: (function_definition body: (_) @body)) @function
(program (binary_operator lhs: (identifier) @name) @constant)
((call function: (identifier) @word arguments: (arguments . (argument))) @import (#set! words "library require source requireNamespace"))
