(module name: (_) @name) @module
(class name: (_) @name) @class
(method name: (_) @name) @function
(singleton_method name: (_) @name) @function
(assignment left: (constant) @name) @constant
((call method: (identifier) @word arguments: (argument_list . (string) .)) @import (#set! words "require require_relative load"))
