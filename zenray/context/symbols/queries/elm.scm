(type_annotation name: (lower_case_identifier) @name) @equation
(value_declaration (function_declaration_left . (lower_case_identifier) @name) body: (_) @body) @equation
(type_alias_declaration name: (upper_case_identifier) @name) @type
(type_declaration name: (upper_case_identifier) @name) @type
(import_clause moduleName: (_)) @import
