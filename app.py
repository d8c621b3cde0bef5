"""The dashboard: `streamlit run app.py`, or `flfed app`. Its pages are the files of the dashboard's folder."""

from __future__ import annotations

import streamlit as st
from streamlit.starlette import App

from flfed.records.dashboard import page_files, page_groups
from flfed.records.dashboard.shell import opened, page_routes


def main() -> None:
    """Show the page of the address, or the first one."""
    # Not above: declared before Streamlit runs, each function whose result is kept (st.cache_data) brings a warning.
    from flfed.records.dashboard import people

    st.set_page_config(page_title="flfed", layout="wide")
    viewer = people.admit()
    st.session_state[people.VIEWER] = viewer
    if viewer is None:
        return
    first = next(iter(page_files()))
    pages = {
        heading: [
            st.Page(file, title=name.replace("-", " ").capitalize(), url_path=name, default=name == first)
            for name, file in files.items()
        ]
        for heading, files in page_groups().items()
    }
    st.navigation(pages).run()


if __name__ == "__main__":
    main()
else:
    app = App(__file__, routes=page_routes(list(page_files())), lifespan=opened)
