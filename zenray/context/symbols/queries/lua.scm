(variable_declaration) @outer
(function_declaration name: (identifier) @name) @function
(function_declaration name: (dot_index_expression table: (_) @container field: (_) @name)) @function
(function_declaration name: (method_index_expression table: (_) @container method: (_) @name)) @method
(assignment_statement (variable_list . name: (dot_index_expression table: (_) @container field: (_) @name)) (expression_list . value: (function_definition body: (_) @body))) @function
(chunk (variable_declaration (assignment_statement (variable_list . name: (identifier) @name)) @constant))
((function_call name: (identifier) @word arguments: (arguments . (string) .)) @import (#set! words "require"))
