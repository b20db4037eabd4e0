(class_name_statement name: (name) @name) @type
(class_definition name: (name) @name) @class
(function_definition name: (name) @name) @function
(source (const_statement name: (name) @name) @constant)
(enum_definition name: (name) @name) @type
