(class_definition name: (identifier) @name) @class
(mixin_declaration (identifier) @name) @class
(extension_declaration name: (identifier) @name) @class
(enum_declaration name: (identifier) @name) @type
(type_alias . (type_identifier) @name) @type
((function_signature name: (identifier) @name) @function . (function_body)? @body)
((method_signature (function_signature name: (identifier) @name)) @function . (function_body)? @body)
(declaration (constructor_signature name: (identifier) @name)) @function
(program (static_final_declaration_list (static_final_declaration . (identifier) @name) @constant))
(import_or_export) @import
