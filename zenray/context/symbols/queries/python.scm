(decorated_definition) @outer
(class_definition name: (identifier) @name) @class
(function_definition name: (identifier) @name) @function
(module (assignment left: (identifier) @name) @constant)
(class_definition body: (block (assignment left: (identifier) @name) @field))
(import_statement) @import
(import_from_statement) @import
