(procedure_declaration . (identifier) @name (procedure (block) @body)) @function
(struct_declaration . (identifier) @name) @type
(enum_declaration . (identifier) @name) @type
(union_declaration . (identifier) @name) @type
(source_file (const_declaration . (identifier) @name) @constant)
(import_declaration) @import
