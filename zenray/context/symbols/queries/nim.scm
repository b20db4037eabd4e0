(proc_declaration name: [(identifier) @name (exported_symbol (identifier) @name)]) @function
(func_declaration name: [(identifier) @name (exported_symbol (identifier) @name)]) @function
(method_declaration name: [(identifier) @name (exported_symbol (identifier) @name)]) @function
(template_declaration name: [(identifier) @name (exported_symbol (identifier) @name)]) @function
(macro_declaration name: [(identifier) @name (exported_symbol (identifier) @name)]) @function
(type_declaration (type_symbol_declaration name: [(identifier) @name (exported_symbol (identifier) @name)])) @type
(source_file (const_section (variable_declaration (symbol_declaration_list (symbol_declaration name: [(identifier) @name (exported_symbol (identifier) @name)]))) @constant))
(import_statement) @import
(import_from_statement) @import
