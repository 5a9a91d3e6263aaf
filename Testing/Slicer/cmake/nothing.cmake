# Slicer's own files set compilers and packaging up; nothing here depends on them.
