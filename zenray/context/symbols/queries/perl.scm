(package_statement name: (package) @name) @type
(subroutine_declaration_statement name: (bareword) @name) @function
(use_statement module: (package)) @import
