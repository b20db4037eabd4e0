(function_or_value_defn (function_declaration_left . (identifier) @name)) @function
(function_or_value_defn (value_declaration_left (identifier_pattern (long_identifier_or_op) @name))) @constant
(type_definition (_ (type_name type_name: (identifier) @name))) @type
(member_defn (method_or_prop_defn name: (property_or_ident method: (identifier) @name))) @method
(module_defn . (identifier) @name) @module
(import_decl) @import
