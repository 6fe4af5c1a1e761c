"""Charts as inline SVG for the HTML report, drawn here, so that the page needs no library and no network.

Horizontal places are percentages and vertical ones pixels: a chart takes the width it is given, on a phone as
on a page, and its letters keep their size. Colours are left to classes of the page's style sheet.
"""
