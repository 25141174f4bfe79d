"""Measures of quality: PSNR, SSIM, LPIPS, FloLPIPS."""
