"""The report: one HTML file that holds every experiment, made from the records alone.

:mod:`~rosa.report.html.contents` says what the page shows, as plain data; :mod:`~rosa.report.html.render` writes it,
with the template, the style sheet and the script under ``assets``. The tables stand in the page as they are. What lies
behind a cell, its runs, is kept as data and drawn when somebody asks for it, so that a browser can carry thousands.
"""
