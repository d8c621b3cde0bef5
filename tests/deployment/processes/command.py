"""The `flfed` command with `site serve` and `site units`, as another process starts it."""

from flfed.cli import main
from flfed.cli.site.rows import app
from flfed.cli.site.serve import serve_site, write_units

if __name__ == "__main__":
    named = {command.name for command in app.registered_commands}
    for name, command in (("serve", serve_site), ("units", write_units)):
        if name not in named:
            app.command(name)(command)
    main()
