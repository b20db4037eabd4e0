(signature name: (variable) @name) @equation
(function name: (variable) @name match: (_) @body) @equation
(bind name: (variable) @name match: (_) @body) @equation
(data_type name: (name) @name) @type
(newtype name: (name) @name) @type
(type_synomym name: (name) @name) @type
(class name: (name) @name) @class
(import) @import
