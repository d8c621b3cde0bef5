"""The app of one site's own people: `flfed site app NAME`. It reads the site's folder, and writes nothing."""

from __future__ import annotations

import os

import streamlit as st
from starlette.middleware import Middleware
from streamlit.starlette import App

from flfed.apps.site_app import page_files
from flfed.apps.site_app.may_look import TOKEN, named
from flfed.apps.site_app.only_with_token import OnlyWithToken, announced
from flfed.records.dashboard.shell import page_routes


def main() -> None:
    """Show the page of the address, or the first one."""
    st.set_page_config(page_title=f"{named()} – flfed", layout="wide")
    files = page_files()
    first = next(iter(files))
    pages = [
        st.Page(file, title=name.replace("-", " ").capitalize(), url_path=name, default=name == first)
        for name, file in files.items()
    ]
    st.navigation({f"Site {named()}": pages}).run()


if __name__ == "__main__":
    main()
else:
    only = Middleware(OnlyWithToken, token=os.environ.get(TOKEN, ""))
    app = App(__file__, routes=page_routes(list(page_files())), middleware=[only], lifespan=announced)
