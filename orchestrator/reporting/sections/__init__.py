"""One module per section of a report: it computes the values of its template and draws its figure."""
