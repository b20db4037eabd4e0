(binding attrpath: (attrpath . (identifier) @name .) expression: (function_expression body: (_) @body)) @function
