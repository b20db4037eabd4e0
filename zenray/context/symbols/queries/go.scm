(type_declaration) @outer
(const_declaration) @outer
(var_declaration) @outer
(function_declaration name: (identifier) @name) @function
(method_declaration receiver: (parameter_list) @container name: (field_identifier) @name) @method
(type_declaration (type_spec name: (type_identifier) @name) @type)
(type_declaration (type_alias name: (type_identifier) @name) @type)
(source_file (const_declaration (const_spec name: (identifier) @name) @constant))
(source_file (var_declaration (var_spec name: (identifier) @name) @constant))
(source_file (var_declaration (var_spec_list (var_spec name: (identifier) @name) @constant)))
(import_spec) @import
