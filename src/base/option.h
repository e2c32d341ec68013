/* option.h - options declared once: parsing, help, ranges, defaults, recipes and documents come from one table. */
#ifndef KW_OPTION_H
#define KW_OPTION_H
#endif
