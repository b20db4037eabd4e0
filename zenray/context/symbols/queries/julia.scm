(function_definition (signature (call_expression . (identifier) @name))) @function
(function_definition (signature (typed_expression (call_expression . (identifier) @name)))) @function
(assignment . (call_expression . (identifier) @name)) @function
(macro_definition (signature (call_expression . (identifier) @name))) @function
(struct_definition (type_head [(identifier) @name (binary_expression . (identifier) @name) (parametrized_type_expression . (identifier) @name)])) @type
(abstract_definition (type_head [(identifier) @name (binary_expression . (identifier) @name)])) @type
(module_definition name: (identifier) @name) @module
(const_statement (assignment . (identifier) @name)) @constant
(using_statement) @import
(import_statement) @import
