"""App for the people of one site, `flfed site app NAME`, which reads the site's folder and writes nothing."""

from __future__ import annotations

import streamlit as st
from streamlit.starlette import App

from flfed.deployment.site_app import make_guard, named, page_files
from flfed.packages import be_strict
from flfed.records.dashboard.access import page_routes


def main() -> None:
    """Show the page of the address, or the first one."""
    st.set_page_config(page_title=f"{named()} – flfed", layout="wide")
    files = page_files()
    first = next(iter(files))
    pages = [
        st.Page(file, title=name.replace("-", " ").capitalize(), url_path=name, default=name == first)
        for name, file in files.items()
    ]
    st.navigation(pages).run()


if __name__ == "__main__":
    main()
else:
    be_strict()
    guard = make_guard()
    app = App(
        __file__, routes=page_routes(list(page_files())), middleware=[guard.middleware()], lifespan=guard.announced
    )
