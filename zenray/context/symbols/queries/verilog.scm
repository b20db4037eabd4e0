(module_declaration (module_header (simple_identifier) @name)) @module
(function_declaration (function_body_declaration (function_identifier) @name)) @function
(task_declaration (task_body_declaration (task_identifier) @name)) @function
(class_declaration (class_identifier) @name) @class
(package_declaration . (package_identifier) @name) @module
