(function_def (function_command (argument_list . (argument) @name)) (body) @body) @function
(macro_def (macro_command (argument_list . (argument) @name)) (body) @body) @function
((normal_command (identifier) @word (argument_list . (argument))) @import (#set! words "include add_subdirectory find_package"))
