(export_statement) @outer
(lexical_declaration) @outer
(function_declaration name: (identifier) @name) @function
(generator_function_declaration name: (identifier) @name) @function
(class_declaration name: (_) @name) @class
(method_definition name: (property_identifier) @name) @method
(variable_declarator name: (identifier) @name value: (arrow_function body: (_) @body)) @function
(variable_declarator name: (identifier) @name value: (function_expression body: (_) @body)) @function
(program (lexical_declaration (variable_declarator name: (identifier) @name) @constant))
(program (export_statement (lexical_declaration (variable_declarator name: (identifier) @name) @constant)))
(assignment_expression left: (member_expression object: (_) @container property: (_) @name) right: (function_expression body: (_) @body)) @function
(assignment_expression left: (member_expression object: (_) @container property: (_) @name) right: (arrow_function body: (_) @body)) @function
(import_statement) @import
(export_statement source: (_)) @import
((variable_declarator value: (call_expression function: (identifier) @word arguments: (arguments . (string) .))) @import (#set! words "require"))
