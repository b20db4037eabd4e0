((FnProto function: (IDENTIFIER) @name) @function . (Block)? @body)
(Decl (VarDecl variable_type_function: (IDENTIFIER) @name (ErrorUnionExpr (SuffixExpr (ContainerDecl)))) @type)
(source_file (Decl (VarDecl variable_type_function: (IDENTIFIER) @name) @constant))
((SuffixExpr (BUILTINIDENTIFIER) @word (FnCallArguments)) @import (#set! words "@import"))
