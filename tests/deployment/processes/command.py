"""The `flfed` command with `site serve` and `site units`, as another process starts it."""

from flfed.cli import main, site
from flfed.cli.site_commands.serve import serve_site, write_units

if __name__ == "__main__":
    named = {command.name for command in site.app.registered_commands}
    for name, command in (("serve", serve_site), ("units", write_units)):
        if name not in named:
            site.app.command(name)(command)
    main()
