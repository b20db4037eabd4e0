(value_definition (let_binding pattern: (value_name) @name (parameter) body: (_) @body)) @function
(value_definition (let_binding pattern: (value_name) @name body: [(fun_expression) (function_expression)] @body)) @function
(value_definition (let_binding pattern: (value_name) @name)) @constant
(value_specification (value_name) @name) @function
(external (value_name) @name) @function
(type_definition (type_binding name: (_) @name)) @type
(module_definition (module_binding (module_name) @name body: (_)? @body)) @module
(module_type_definition (module_type_name) @name) @module
(class_definition (class_binding (class_name) @name)) @class
(exception_definition (constructor_declaration (constructor_name) @name)) @type
(open_module) @import
