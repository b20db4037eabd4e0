(class_declaration (identifier) @name (aggregate_body)? @body) @class
(interface_declaration (identifier) @name (aggregate_body)? @body) @class
(struct_declaration (identifier) @name (aggregate_body)? @body) @class
(enum_declaration (identifier) @name) @type
(function_declaration (identifier) @name (function_body)? @body) @function
(import_declaration) @import
