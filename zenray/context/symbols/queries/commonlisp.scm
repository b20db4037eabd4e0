(list_lit (defun (defun_header function_name: (_) @name))) @function
((list_lit . (sym_lit) @word . (sym_lit) @name) @class (#set! words "defclass defstruct deftype define-condition"))
((list_lit . (sym_lit) @word . (sym_lit) @name) @constant (#set! words "defvar defparameter defconstant"))
