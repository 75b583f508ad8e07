// Before the first paint, hence no module: the theme chosen earlier. "auto" follows the system.
try {
  const theme = localStorage.getItem("fuseline-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be refused: then the system decides.
}
