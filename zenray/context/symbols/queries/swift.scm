(class_declaration name: (type_identifier) @name) @class
(class_declaration name: (user_type) @name) @scope
(protocol_declaration name: (type_identifier) @name) @class
(function_declaration name: (simple_identifier) @name) @function
(protocol_function_declaration name: (simple_identifier) @name) @method
(typealias_declaration name: (type_identifier) @name) @type
(source_file (property_declaration name: (pattern) @name) @constant)
(class_body (property_declaration name: (pattern) @name) @field)
(import_declaration) @import
(init_declaration "init" @name) @method
