(fun_decl (function_clause name: (atom) @name body: (_) @body)) @equation
(record_decl name: (atom) @name) @type
(type_alias name: (type_name) @name) @type
(pp_define lhs: (macro_lhs name: (_) @name)) @constant
(pp_include) @import
(pp_include_lib) @import
