"""The report: one HTML file that holds every experiment, made from the records alone.

:mod:`~rosa.report.html.contents` collects what the page shows as plain data; :mod:`~rosa.report.html.render` writes it
with the template, style sheet and script under ``assets``. Tables are plain HTML, and charts are SVG text, which takes
milliseconds and no drawing library. The runs behind a cell are embedded as JSON and drawn on demand, so that a browser
can handle thousands.
"""
