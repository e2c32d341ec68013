/* source.h - a model as it lies on disk: a diffusers folder, one part of it, or a single LDM file. */
#ifndef KW_SOURCE_H
#define KW_SOURCE_H
#endif
