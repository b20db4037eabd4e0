(list_lit (defun (defun_header function_name: (_) @name))) @function
((list_lit . (sym_lit) @word . (sym_lit) @name) @class (#one-of? @word "defclass" "defstruct" "deftype" "define-condition"))
((list_lit . (sym_lit) @word . (sym_lit) @name) @constant (#one-of? @word "defvar" "defparameter" "defconstant"))
