(declType name: (identifier) @name) @type
(defProc header: (declProc name: (_) @name) body: (_)? @body) @function
(interface (declProc name: (identifier) @name) @function)
(declUses) @import
