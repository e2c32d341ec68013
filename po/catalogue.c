/* catalogue.c - the Japanese catalogue inside the program; KW_JA_MO is the path of the compiled po/ja.po. */
extern const unsigned char kw_ja_mo[], kw_ja_mo_end[];

__asm__(".section .rodata\n"
        ".global kw_ja_mo\n.global kw_ja_mo_end\n"
        ".balign 8\n"
        "kw_ja_mo:\n.incbin \"" KW_JA_MO "\"\n"
        "kw_ja_mo_end:\n.byte 0\n"
        ".previous\n");
