(config_file (body (block . (identifier) (string_lit) @name . (block_start) @body) @type))
