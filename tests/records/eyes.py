"""What a reader sees of a page's charts and words, as the browser drew them: axes, cut words, contrasts, the focus."""

import re
from typing import Any

from tests.browser import Window

WIDTHS, PHONE = (320, 390, 768, 1024, 1440), 390
NARROW = (320,)
"""Of the widths the one where most is cut; a desk's is looked at in the dark anyway."""
LEAST_TEXT, LEAST_MARK = 4.5, 3.0
"""Contrasts of WCAG 2.2, levels AA."""
COLOURS = r"""
  const parse = text => {
    const found = (text || '').match(/[\d.]+/g);
    return !found || text === 'none' ? [0, 0, 0, 0] : [...found.slice(0, 3).map(Number), found[3] ? +found[3] : 1];
  };
  const over = (top, below) => [0, 1, 2].map(k => top[k] * top[3] + below[k] * (1 - top[3]));
  const light = c => [0.2126, 0.7152, 0.0722].reduce((sum, weight, k) => {
    const v = c[k] / 255;
    return sum + weight * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const contrast = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const painted = (element, what) => {
    const style = getComputedStyle(element), colour = parse(style[what]);
    let alpha = colour[3] * +style[what + 'Opacity'];
    for (let e = element; e && e.tagName !== 'svg'; e = e.parentElement) alpha *= +getComputedStyle(e).opacity;
    if (what === 'stroke' && parseFloat(style.strokeWidth) === 0) alpha = 0;
    return [...colour.slice(0, 3), alpha];
  };
  const round = x => Math.round(x * 100) / 100;
"""
"""Colours as they are painted, and their contrast."""
CHARTS = (
    r"""() => {"""
    + COLOURS
    + r"""
  return [...document.querySelectorAll('[data-testid=stVegaLiteChart]')].map(chart => {
    const svg = chart.querySelector('svg'), frame = svg.getBoundingClientRect(), page = behind(chart);
    const outer = chart.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')].filter(t => t.textContent && painted(t, 'fill')[3] > 0);
    const inside = b => b.left >= Math.max(frame.left, outer.left) - 1 && b.top >= frame.top - 1
      && b.right <= Math.min(frame.right, outer.right, innerWidth) + 1 && b.bottom <= frame.bottom + 1;
    const cut = texts.filter(t => t.textContent.includes('…') || !inside(t.getBoundingClientRect()));
    const axes = [...svg.querySelectorAll('.role-axis')].map(axis => ({
      title: [...axis.querySelectorAll('.role-axis-title text')].map(t => t.textContent).join(' '),
      labels: [...axis.querySelectorAll('.role-axis-label text')].filter(t => painted(t, 'fill')[3] > 0).map(t => {
        const b = t.getBoundingClientRect();
        return [t.textContent, (b.left + b.right) / 2, (b.top + b.bottom) / 2];
      }),
    })).filter(axis => axis.labels.length);
    const plot = svg.querySelector('.root path.background').getBoundingClientRect();
    const shapes = [...svg.querySelectorAll('.mark-rect path, .mark-area path, .mark-symbol path')];
    const under = text => {
      const b = text.getBoundingClientRect(), x = (b.left + b.right) / 2, y = (b.top + b.bottom) / 2;
      return shapes.filter(shape => {
        const s = shape.getBoundingClientRect();
        return s.left <= x && x <= s.right && s.top <= y && y <= s.bottom;
      }).reduce((below, shape) => over(painted(shape, 'fill'), below), page);
    };
    const words = texts.map(t => {
      const below = under(t);
      return [t.textContent, round(contrast(over(painted(t, 'fill'), below), below))];
    });
    const kinds = ['line path', 'symbol path', 'rect path', 'rule line', 'area path'];
    const marks = [...svg.querySelectorAll(kinds.map(kind => `.mark-${kind}`).join())]
      .filter(m => !m.closest('.role-axis') && ['fill', 'stroke'].some(w => painted(m, w)[3] > 0))
      .map(m => [m.parentElement.getAttribute('class'),
        round(Math.max(...['fill', 'stroke'].map(w => contrast(over(painted(m, w), page), page))))]);
    const lines = [...svg.querySelectorAll('.role-axis line')].map(l => l.getBoundingClientRect())
      .map(b => [b.left, b.top, b.right, b.bottom]);
    return {cut: cut.map(t => t.textContent), axes, words, marks, lines,
      plot: [plot.left, plot.top, plot.right, plot.bottom]};
  });
}"""
)
"""Of each chart: words that are cut, axes with their labels' places, and the contrast of every word and mark."""
WORDS = (
    r"""() => {"""
    + COLOURS
    + r"""
  const found = {};
  const walk = document.createTreeWalker(document.querySelector('[data-testid=stApp]'), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim(), at = walk.currentNode.parentElement;
    const style = getComputedStyle(at), box = at.getBoundingClientRect();
    if (!text || at.closest('svg, style, script, canvas, [disabled], [aria-hidden=true]') || box.width < 2
        || box.height < 2 || style.visibility === 'hidden' || at.closest('[data-testid=stIconMaterial]')) continue;
    let alpha = 1;
    for (let e = at; e; e = e.parentElement) alpha *= +getComputedStyle(e).opacity;
    const below = behind(at), colour = parse(style.color);
    const ratio = round(contrast(over([...colour.slice(0, 3), colour[3] * alpha], below), below));
    if (ratio < LEAST) found[text.slice(0, 40)] = ratio;
  }
  return found;
}"""
).replace("LEAST", str(LEAST_TEXT))
"""Words of the page that are too pale."""
FOCUS = (
    r"""() => {"""
    + COLOURS
    + r"""
  const active = document.activeElement;
  if (!active || active === document.body) return null;
  const rings = element => {
    const style = getComputedStyle(element), below = behind(element.parentElement || element), found = [];
    if (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2)
      found.push(contrast(over(parse(style.outlineColor), below), below));
    for (const shadow of style.boxShadow.split(/,(?![^(]*\))/)) {
      const sizes = (shadow.replace(/rgba?\([^)]*\)/, '').match(/-?[\d.]+px/g) || []).map(parseFloat);
      if (sizes.length === 4 && sizes[3] >= 1) found.push(contrast(over(parse(shadow), below), below));
    }
    return found;
  };
  let best = 0;
  for (let e = active, up = 0; e && up < 5; e = e.parentElement, up++) {
    const b = e.getBoundingClientRect();
    if (b.width >= 8 && b.height >= 8) best = Math.max(best, ...rings(e));
  }
  for (let e = active; e; e = e.parentElement) if (+getComputedStyle(e).opacity < 0.9) best = 0;
  const box = active.getBoundingClientRect();
  const name = active.getAttribute('aria-label') || active.innerText || active.getAttribute('data-testid') || '';
  const place = [active.tagName, name.trim().slice(0, 40), Math.round(box.left), Math.round(box.top + scrollY)];
  return {place: place.join(' '), ring: round(best)};
}"""
)
"""What has the focus, and the contrast of the ring around it; 0 without one."""
STANDING = """() => {
  const charts = [...document.querySelectorAll('[data-testid=stVegaLiteChart]')];
  const size = chart => [chart.querySelector('svg')?.outerHTML.length, chart.clientWidth];
  const now = charts.map(size).join();
  const stands = now === window.before && charts.every(c => c.querySelector('svg .root path.background'));
  window.before = now;
  return stands;
}"""
"""Whether all charts are drawn, and are as they were at the look before."""
NUMBER = re.compile("[\u2212-]?[0-9]*[.]?[0-9]+")


def is_risen(labels: list[list[Any]], plot: list[float], lines: list[list[float]]) -> tuple[bool, float] | None:
    """Return whether an axis' figures rise to the right or upwards, and its largest figure; None of an axis of names.

    The largest is that of the axis' end, which may lie beyond the last label. Lines of ticks and of the grid tell where
    it ends: beside a forest plot stand columns of text, so that its axis ends before the plot does.
    """
    if not all(NUMBER.fullmatch(str(text).removeprefix("+")) for text, *_ in labels):
        return None
    values = [float(str(text).replace("\u2212", "-")) for text, *_ in labels]
    across = max(y for *_, y in labels) - min(y for *_, y in labels) < 3
    places = [x if across else -y for _, x, y in labels]
    upright = [right for left, _, right, _ in lines if right - left < 2]
    level = [-top for _, top, _, bottom in lines if bottom - top < 2]
    end = plot[2] if across else -plot[1]
    if upright and across:
        end = max(upright)
    if level and not across:
        end = max(level)
    ranked = sorted(zip(places, values, strict=True))
    rises = all(a[1] < b[1] for a, b in zip(ranked, ranked[1:], strict=False))
    (x0, v0), (x1, v1) = ranked[0], ranked[-1]
    return rises, v1 if x1 == x0 else max(v1, v0 + (v1 - v0) * (end - 3 - x0) / (x1 - x0))


def as_wide(window: Window, width: int) -> None:
    """Make the window so wide, and wait until its charts are drawn again."""
    window.page.set_viewport_size({"width": width, "height": window.page.viewport_size["height"]})
    window.page.wait_for_timeout(100)
    window.page.wait_for_function(STANDING, polling=120)


def wrong_with_charts(window: Window) -> list[str]:
    """Return what is wrong with the charts of a page, each in a few words."""
    said = []
    for place, chart in enumerate(window.page.evaluate(CHARTS)):
        said += [f"chart {place}: cut: {text}" for text in chart["cut"]]
        for axis in chart["axes"]:
            risen = is_risen(axis["labels"], chart["plot"], chart["lines"])
            if risen is None:
                continue
            if not risen[0]:
                said.append(f"chart {place}: {axis['title']} does not rise: {[text for text, *_ in axis['labels']]}")
            if "AUC" in axis["title"] and risen[1] > 1.001:
                said.append(f"chart {place}: {axis['title']} goes to {risen[1]:.3f}")
        said += [f"chart {place}: pale word {text!r}: {found}" for text, found in chart["words"] if found < LEAST_TEXT]
        pale = {kind: found for kind, found in chart["marks"] if found < LEAST_MARK}
        said += [f"chart {place}: pale {kind}: {found}" for kind, found in pale.items()]
    return said


def pale_words(window: Window) -> dict[str, float]:
    """Return the page's own words whose contrast is too low, with it."""
    found: dict[str, float] = window.page.evaluate(WORDS)
    return found


def unseen_focus(window: Window, most: int = 80) -> tuple[int, dict[str, float]]:
    """Go through a page by the tabulator; return how many places there are, and where the focus is not seen."""
    rings: dict[str, float] = {}
    for _ in range(most):
        window.page.keyboard.press("Tab")
        found = window.page.evaluate(FOCUS)
        if found is None:
            continue
        if found["place"] in rings:
            break
        rings[found["place"]] = found["ring"]
    return len(rings), {place: ring for place, ring in rings.items() if ring < LEAST_MARK}


def looked_at(window: Window, picture: str = "", widths: tuple[int, ...] = WIDTHS) -> list[str]:
    """Return what is wrong with a page on some screen or in some theme, in a few words each; keep its pictures."""
    start, wrong = window.page.viewport_size["width"], [f"pale: {word}" for word in pale_words(window)]
    window.page.emulate_media(color_scheme="dark")
    as_wide(window, start)
    wrong += [f"dark, {said}" for said in wrong_with_charts(window)]
    wrong += [f"dark, pale: {word}" for word in pale_words(window)]
    if picture:
        window.picture(f"{picture}-dark", whole=True)
    window.page.emulate_media(color_scheme="light")
    for width in widths:
        as_wide(window, width)
        window.is_sound()
        wrong += [f"{width}, {said}" for said in wrong_with_charts(window)]
        if width == PHONE and picture:
            window.picture(f"{picture}-{width}", whole=True)
    # Whoever looks on waits for what it draws anew.
    window.page.set_viewport_size({"width": start, "height": window.page.viewport_size["height"]})
    return wrong
