(mixin_statement name: (_) @name) @function
(function_statement name: (_) @name) @function
(stylesheet (declaration . (property_name) @name) @constant)
(import_statement) @import
(use_statement) @import
