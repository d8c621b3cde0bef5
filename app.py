"""The dashboard: `flfed app`, or `streamlit run app.py` where people log in. Its pages are the dashboard's files."""

from __future__ import annotations

import streamlit as st
from streamlit.starlette import App

from flfed.records.dashboard import APP_TOKEN, logo_file, page_files
from flfed.records.dashboard.access import Guard, load_pages, page_routes


def main() -> None:
    """Show the page of the address, or the first one."""
    # Imported here: a cached function (st.cache_data) that is declared before Streamlit runs brings a warning.
    from flfed.records.dashboard import access

    st.set_page_config(page_title="flfed", layout="wide")
    st.logo(logo_file(dark=st.context.theme.type == "dark"))
    if not access.admit():
        return
    files = page_files()
    first = next(iter(files))
    pages = [
        st.Page(file, title=name.replace("-", " ").capitalize(), url_path=name, default=name == first)
        for name, file in files.items()
    ]
    st.navigation(pages).run()


def logs_in() -> bool:
    """Return whether people log in, so that no token is needed."""
    from flfed.records.dashboard import access

    return access.logs_in()


if __name__ == "__main__":
    main()
else:
    guard = Guard(APP_TOKEN, "flfed app", logs_in=logs_in, load=load_pages)
    app = App(
        __file__, routes=page_routes(list(page_files())), middleware=[guard.middleware()], lifespan=guard.announced
    )
